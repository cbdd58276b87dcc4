// Zod compiles its checks with `new Function` where it may, and asks by trying. The pages' content security policy forbids
// it, so it is told not to ask; each refused try would be an error in the console. Import before anything that parses.
import { config } from 'zod';

config({ jitless: true });
