//go:build !linux

package testenv

import "os/exec"

// followParent does nothing: only Linux can tie a child to its parent.
func followParent(*exec.Cmd) {}
