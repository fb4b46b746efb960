package localpg

import "syscall"

func untie(attr *syscall.SysProcAttr) { attr.Pdeathsig = 0 }
