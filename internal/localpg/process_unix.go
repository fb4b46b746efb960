//go:build unix

package localpg

import (
	"errors"
	"os/exec"
	"syscall"
)

// separate gives cmd its own process group, so that Ctrl-C at the terminal does
// not reach the server before us, and the server's user.
func separate(cmd *exec.Cmd, who account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !who.self {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: who.uid, Gid: who.gid}
	}
	followParent(cmd.SysProcAttr)
}

func askToStop(_ Programs, _ string, pid int) error  { return syscall.Kill(pid, syscall.SIGINT) }
func tellToQuit(_ Programs, _ string, pid int) error { return syscall.Kill(pid, syscall.SIGQUIT) }

// alive reports whether pid runs. A process that ended and waits to be reaped
// does not.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return (err == nil || errors.Is(err, syscall.EPERM)) && !isZombie(pid)
}
