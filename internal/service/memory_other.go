//go:build !linux

package service

// machineMemory is not known here: without TRUEUP_MEMORY_LIMIT or GOMEMLIMIT memory is
// not watched.
func machineMemory() uint64 { return 0 }
