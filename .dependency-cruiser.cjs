// Who may import whom (docs/architecture.md, "Rooms"). Everything not listed is forbidden, circles included.
const allowed = {
  'packages/flexlora': [],
  'packages/formats': [],
  'packages/protocol': [],
  'packages/wgsl-kernels': [],
  'packages/trainer': ['packages/wgsl-kernels', 'packages/formats'],
  'packages/volunteer': ['packages/protocol', 'packages/formats'],
  'apps/server': ['packages/flexlora', 'packages/formats', 'packages/protocol'],
  'apps/web-client': ['packages/volunteer', 'packages/trainer', 'packages/formats', 'packages/protocol'],
  e2e: ['packages/'],
  bench: ['packages/', 'e2e'],
  trials: ['packages/', 'apps/server'],
};

const pure = ['packages/flexlora', 'packages/formats', 'packages/protocol', 'packages/volunteer'];

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-circles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
    ...Object.entries(allowed).map(([room, targets]) => ({
      name: `${room.replace('/', '-')}-imports`,
      severity: 'error',
      from: { path: `^${room}/` },
      to: {
        path: '^(packages|apps|e2e|bench|trials)/',
        pathNot: [room, ...targets].map((target) => `^${target}${target.endsWith('/') ? '' : '/'}`),
      },
    })),
    {
      name: 'pure-rooms-touch-no-machine',
      comment: 'These packages run in any JavaScript host: no Node modules outside their tests.',
      severity: 'error',
      from: { path: pure.map((room) => `^${room}/src/`), pathNot: '\\.test\\.ts$' },
      to: { dependencyTypes: ['core'] },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|node_modules)/' },
    enhancedResolveOptions: {
      conditionNames: ['@weft/source', 'import', 'node', 'default'],
      exportsFields: ['exports'],
    },
  },
};
