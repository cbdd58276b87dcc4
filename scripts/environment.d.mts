export const root: string;
export const stateFolder: string;
export interface VulkanCandidate {
  name: string;
  loader: string | null;
  drivers: string[];
}
export function findBrowser(): string | null;
export function vulkanCandidates(browser: string | null): VulkanCandidate[];
export function vulkanEnvironment(candidate: VulkanCandidate | null): Record<string, string>;
export function wantsSoftwareAdapter(): boolean;
export function browserLaunchArguments(options?: { software?: boolean }): string[];
export function recordedEnvironment(): { browser: string | null; vulkan: VulkanCandidate | null } | null;
