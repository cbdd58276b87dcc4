// Synchronous access to private files exists in dedicated workers only, so TypeScript's library for pages leaves it out.
// https://fs.spec.whatwg.org/#api-filesystemsyncaccesshandle

interface FileSystemSyncAccessHandle {
  write(bytes: AllowSharedBufferSource, options?: { at?: number }): number;
  flush(): void;
  close(): void;
}

interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<FileSystemSyncAccessHandle>;
}
