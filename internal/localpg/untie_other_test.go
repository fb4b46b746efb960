//go:build unix && !linux

package localpg

import "syscall"

func untie(*syscall.SysProcAttr) {}
