// Package campaign runs fault campaigns against real processes: kill -9 and SIGSTOP
// of every part, broken links, power cuts, a million events, long soaks. It holds
// tests only; each takes a seed and a number and can be repeated by anyone:
//
//	go test ./internal/campaign -run TestPowerCut -v -args -seed 1 -n 50 -record runs.jsonl
//
// (-args, because go has a -n of its own.) Without flags each runs the few rounds that CI has time for.
//
// It stands apart from the packages it breaks because it knows none of them: what it
// judges by is what senders were answered, what the emulator of ImageKit holds and
// what SQL and the stream show. Its one invariant: a campaign that could not have
// failed does not pass. What was planted has to have fired, and a control that has to
// lose something has to lose it.
package campaign
