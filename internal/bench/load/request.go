package load

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/emulator"
)

// signedAhead is how many webhooks are signed before the clock starts, to be sent again
// and again: making them must not cost the side under test its processor. What they
// cost the receiver is the same each time.
const signedAhead = 2048

// requests are what a job sends, as bytes.
type requests struct {
	job   *Job
	wires [][]byte // whole requests; for reports one, with room for a fileId
	hole  int      // where the fileId stands in a report
	ids   uint64   // invented fileIds begin with it
}

func (j *Job) requests(now time.Time) (*requests, error) {
	r := &requests{job: j, ids: rand.New(rand.NewPCG(j.Seed, 1)).Uint64()}
	if j.Kind == Report {
		r.report()
		return r, nil
	}
	n := signedAhead
	if len(j.Files) > 0 {
		n = len(j.Files)
	}
	for i := range n {
		wire, err := r.webhook(r.fileID(uint64(i)), i, now)
		if err != nil {
			return nil, err
		}
		r.wires = append(r.wires, wire)
	}
	return r, nil
}

// fileID is the n-th file of the job; invented ones have ImageKit's form and grow as
// its own do.
func (r *requests) fileID(n uint64) string {
	if len(r.job.Files) > 0 {
		return r.job.Files[n%uint64(len(r.job.Files))]
	}
	return string(r.appendID(nil, n))
}

func (r *requests) appendID(dst []byte, n uint64) []byte {
	var raw [12]byte
	for i := range 6 {
		raw[i] = byte(r.ids >> (8 * i))
		raw[11-i] = byte(n >> (8 * i))
	}
	return hex.AppendEncode(dst, raw[:])
}

func (r *requests) webhook(fileID string, n int, now time.Time) ([]byte, error) {
	body, err := emulator.SampleWebhook("file.created", fileID, now)
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	signature.Sign(h, r.job.Secret, "msg_"+strconv.FormatUint(r.ids, 36)+"_"+strconv.Itoa(n), now, body)
	return wire(r.job.Address, "/webhooks/imagekit", h, body), nil
}

func (r *requests) report() {
	body := []byte(`{"fileId":"000000000000000000000000","url":"https://ik.imagekit.io/demo_id/uploads/holiday-picture.jpg"}`)
	h := http.Header{"Authorization": {"Bearer " + r.job.Token}}
	whole := wire(r.job.Address, "/save-metadata", h, body)
	r.wires, r.hole = [][]byte{whole}, bytes.Index(whole, []byte(`":"000`))+3
}

// appendRequest appends the n-th request of the job.
func (r *requests) appendRequest(dst []byte, n uint64) []byte {
	if r.job.Kind == Webhook {
		return append(dst, r.wires[n%uint64(len(r.wires))]...)
	}
	at := len(dst) + r.hole
	dst = append(dst, r.wires[0]...)
	r.appendID(dst[:at], n) // of the same length, so in place
	return dst
}

func wire(address, path string, h http.Header, body []byte) []byte {
	var b bytes.Buffer
	_, _ = fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: ImageKit.io\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, address, len(body))
	_ = h.Write(&b)
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}
