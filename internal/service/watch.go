package service

import (
	"math"
	"runtime/debug"

	"github.com/trueup/trueup/worker"
)

// watchdog watches over the worker where somebody can restart the process.
func (s *Service) watchdog() *worker.Watchdog {
	if s.Restart == nil {
		return nil
	}
	return worker.NewWatchdog(worker.WatchdogConfig{
		Restart: s.Restart, StepLimit: s.Watchdog.StepLimit, MemoryLimit: memoryLimit(uint64(s.Watchdog.MemoryLimit), machineMemory()),
	})
}

// memoryLimit is the configured limit, else GOMEMLIMIT, else 80 % of the machine's
// memory; zero means that none is known.
func memoryLimit(configured, machine uint64) uint64 {
	if configured > 0 {
		return configured
	}
	if runtimes := debug.SetMemoryLimit(-1); runtimes < math.MaxInt64 {
		return uint64(runtimes)
	}
	return machine / 5 * 4
}
