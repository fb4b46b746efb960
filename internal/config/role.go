package config

import (
	"slices"
	"strings"
)

// Role is what a process is: it decides which variables are read and which must be
// there.
type Role string

const (
	Serve    Role = "serve"
	Ingest   Role = "ingest"
	Worker   Role = "worker"
	Migrate  Role = "migrate"
	Audit    Role = "audit"
	Dev      Role = "dev"
	Emulator Role = "emulator"
	// OperatorClient is every command that talks to a running process.
	OperatorClient Role = "operator"
)

// Roles are all of them, in the order in which people meet them.
func Roles() []Role {
	return []Role{Dev, Serve, Ingest, Worker, Migrate, Audit, Emulator, OperatorClient}
}

// foreign are the beginnings of the names that dev never sees, so that it cannot
// touch production.
var foreign = []string{"DATABASE_URL", "NATS_", "IMAGEKIT_", "IMAGE_KIT_"}

// withoutForeign is env without the variables that dev refuses, and their names.
func withoutForeign(env map[string]string) (kept map[string]string, ignored []string) {
	kept = make(map[string]string, len(env))
	for name, value := range env {
		if slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(name, p) }) {
			ignored = append(ignored, name)
			continue
		}
		kept[name] = value
	}
	slices.Sort(ignored)
	return kept, ignored
}
