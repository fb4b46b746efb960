package testenv

import (
	"os/exec"
	"syscall"
)

// followParent has the kernel end cmd when the test binary is killed.
func followParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
}
