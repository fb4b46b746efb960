package localpg

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

const loaderPath = "" // Windows loads libraries from the program's own folder

func separate(cmd *exec.Cmd, _ account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// Windows has no signals; PostgreSQL's own pg_ctl knows how to ask.
func askToStop(p Programs, data string, _ int) error  { return pgctl(p, data, "fast") }
func tellToQuit(p Programs, data string, _ int) error { return pgctl(p, data, "immediate") }

func pgctl(p Programs, data, mode string) error {
	cmd := exec.Command(p.path("pg_ctl"), "stop", "-D", data, "-m", mode, "-W")
	cmd.Env = p.env()
	return cmd.Run()
}

func alive(pid int) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return false
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var code uint32
	return windows.GetExitCodeProcess(h, &code) == nil && code == stillActive
}

const stillActive = 259 // STILL_ACTIVE

func isPostgres(int) answer { return unknown }
func worksIn(string) answer { return unknown }
