package verify_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// oneFile is a library that holds "there".
type oneFile struct{}

func (oneFile) Details(_ context.Context, id string) (file.Answer, error) {
	if id != "there" {
		return file.Answer{}, &file.Fault{Kind: file.NotFound, Status: 404}
	}
	return file.Answer{Status: 200, Snapshots: []file.Snapshot{{ID: id}}}, nil
}

func (oneFile) Search(context.Context, []string) (file.Answer, error) { return file.Answer{}, nil }

func (oneFile) ListOne(context.Context) (file.Answer, error) { return file.Answer{Status: 200}, nil }

// noRows draws fences and knows of nothing.
type noRows struct{}

func (noRows) Fence(context.Context, []string) (file.Fence, map[string]file.Known, error) {
	return file.Fence{Number: 1, At: time.Unix(0, 0)}, nil, nil
}

func ExampleVerifier_Look() {
	v, err := verify.New(verify.Config{Library: oneFile{}, Fences: noRows{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	answers, err := v.Look(context.Background(), []verify.Ask{
		{FileID: "there", NewsOnly: true},
		{FileID: "missing", ByID: true},
		{FileID: "../etc/passwd"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range answers {
		verdict, reason := verify.Decide(a)
		fmt.Println(a.Observation.FileID, verdict, reason)
	}
	// Output:
	// there present look-up
	// missing absent not_found
	// ../etc/passwd absent invalid_id
}
