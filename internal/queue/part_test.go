package queue

import "errors"

func runPart(part string) error { return errors.New("unknown part") }
