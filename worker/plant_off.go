//go:build !planted

package worker

import "github.com/trueup/trueup/internal/event"

// plant does nothing in a real build; see plant_on.go.
func plant(event.Pending) {}
