// Preloaded by the tests: a server ends with the test binary that holds its standard
// input, even when that was killed.
process.stdin.on('end', () => process.exit(0)).resume();
