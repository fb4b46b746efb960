package localpg

import "os"

// account is the user the server runs as: on Windows always ourselves.
type account struct {
	name string
	self bool
}

func accountFor(_, _ string) (account, error) {
	return account{name: os.Getenv("USERNAME"), self: true}, nil
}

func (a account) canEnter(string) bool { return true }
func (a account) give(string) error    { return nil }
func (a account) owns(string) bool     { return true }
