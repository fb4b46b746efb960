//go:build !unix

package main

import "os"

// columns is how wide a terminal is where nobody can be asked.
func columns(*os.File) int { return columnsUnknown }
