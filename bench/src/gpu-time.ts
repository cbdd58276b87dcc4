// How long the thread that drives the GPU is busy with it: encoding and submitting, as the libraries' own counters and the
// wall clock do not tell.

interface Hooked {
  /** Milliseconds spent since {@link reset}. */
  readonly milliseconds: () => number;
  readonly reset: () => void;
  /** Puts the device's own functions back. */
  readonly undo: () => void;
}

/**
 * Counts the time from making a command encoder until its submit, and that of every upload. Right where a thread does
 * nothing else between those two, as a plan does.
 */
export function hookEncoding(device: GPUDevice): Hooked {
  const { queue } = device;
  const own = {
    createCommandEncoder: device.createCommandEncoder.bind(device),
    submit: queue.submit.bind(queue),
    writeBuffer: queue.writeBuffer.bind(queue),
  };
  let spent = 0;
  let began: number | null = null;
  device.createCommandEncoder = (descriptor?: GPUCommandEncoderDescriptor) => {
    began ??= performance.now();
    return own.createCommandEncoder(descriptor);
  };
  queue.submit = (commands: Iterable<GPUCommandBuffer>) => {
    const start = began ?? performance.now();
    own.submit(commands);
    spent += performance.now() - start;
    began = null;
  };
  queue.writeBuffer = (...upload: Parameters<GPUQueue['writeBuffer']>) => {
    const start = performance.now();
    own.writeBuffer(...upload);
    if (began === null) spent += performance.now() - start;
  };
  return {
    milliseconds: () => spent,
    reset() {
      spent = 0;
    },
    undo() {
      Object.assign(device, { createCommandEncoder: own.createCommandEncoder });
      Object.assign(queue, { submit: own.submit, writeBuffer: own.writeBuffer });
    },
  };
}
