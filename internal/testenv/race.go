//go:build race

package testenv

const raceBuilt = true
