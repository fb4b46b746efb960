//go:build planted

package worker

import (
	"encoding/json"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// plant misbehaves as the event's body asks for ("plant":"panic", "spin", "eat" or
// "hang"), in the batch's own step. It exists only in builds with the tag planted,
// which the tests of poison use.
func plant(p event.Pending) {
	var body struct {
		Plant string `json:"plant"`
		Data  struct {
			Plant string `json:"plant"`
		} `json:"data"`
	}
	_ = json.Unmarshal(p.Body, &body)
	switch body.Plant + body.Data.Plant {
	case "panic":
		panic("planted in the body")
	case "spin":
		spin()
	case "eat":
		eat()
	case "hang":
		select {}
	}
}

//go:noinline
func spin() {
	for n := 1; n != 0; n |= 1 {
	}
}

// eat takes 64 MiB every 10 ms and touches all of it.
//
//go:noinline
func eat() {
	var held [][]byte
	for {
		chunk := make([]byte, 64<<20)
		for i := 0; i < len(chunk); i += 4096 {
			chunk[i] = 1
		}
		held = append(held, chunk)
		<-time.After(10 * time.Millisecond)
		_ = held
	}
}
