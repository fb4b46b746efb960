//go:build !unix

package simulate_test

// becomeLane can only start a process anew where there is exec.
func becomeLane() {}
