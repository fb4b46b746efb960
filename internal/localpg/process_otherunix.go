//go:build unix && !linux

package localpg

import "syscall"

const loaderPath = "DYLD_LIBRARY_PATH"

// followParent does nothing here: only Linux can tie a child to its parent. A
// server that survives a kill -9 of trueup is adopted at the next start.
func followParent(*syscall.SysProcAttr) {}

func isZombie(int) bool     { return false }
func isPostgres(int) answer { return unknown }
func worksIn(string) answer { return unknown }
