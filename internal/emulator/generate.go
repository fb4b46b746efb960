package emulator

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// generation is a library made at once: a formula instead of records. The i-th
// file's id, name, times, size and bytes follow from the numbers below, so a
// million of them cost one line on disk and no memory, until one is changed: then
// it becomes a record and its index is hidden.
type generation struct {
	Number int    `json:"number"` // its place in library.generations
	Count  int    `json:"count"`
	Folder string `json:"folder"`
	Seed   uint64 `json:"seed"`
	First  int64  `json:"first"`  // createdAt of file 0, epoch ms
	Spread int64  `json:"spread"` // until createdAt of file Count, ms

	hidden map[int]bool
}

// hidden names files of a generation that are deleted or have become records.
type hidden struct {
	Number  int   `json:"number"`
	Indexes []int `json:"indexes,omitempty"`
}

// maxGenerated keeps a typing error from asking for more than an index can hold.
const maxGenerated = 100_000_000

func (l *library) generate(g *generation) error {
	if g.Number != len(l.generations) || g.Count < 0 || g.Count > maxGenerated {
		return fmt.Errorf("generation %d of %d files is out of order", g.Number, g.Count)
	}
	g.hidden = map[int]bool{}
	l.generations = append(l.generations, g)
	return nil
}

func (l *library) hide(h *hidden) error {
	if h.Number < 0 || h.Number >= len(l.generations) {
		return fmt.Errorf("generation %d is not known", h.Number)
	}
	for _, i := range h.Indexes {
		l.generations[h.Number].hidden[i] = true
	}
	return nil
}

func (g *generation) hiding() *hidden {
	h := &hidden{Number: g.Number}
	for i := range g.hidden {
		h.Indexes = append(h.Indexes, i)
	}
	slices.Sort(h.Indexes)
	return h
}

// live counts the files that are still as generated.
func (g *generation) live() int { return g.Count - len(g.hidden) }

func (g *generation) createdAt(i int) int64 {
	whole, rest := g.Spread/int64(max(g.Count, 1)), g.Spread%int64(max(g.Count, 1))
	return g.First + int64(i)*whole + int64(i)*rest/int64(max(g.Count, 1))
}

// from is the first index whose createdAt is t or later.
func (g *generation) from(t int64) int {
	lo, hi := 0, g.Count
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); g.createdAt(mid) < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// stir is a bijection of 64 bits and settle its inverse: ids look unlike each
// other, and an id says which file it is without a table.
const (
	stirBy   = 0x9e3779b97f4a7c15
	settleBy = 0xf1de83e19937733d // stirBy · settleBy = 1 modulo 2⁶⁴
)

func stir(v uint64) uint64 {
	v *= stirBy
	v ^= v >> 32
	return v * stirBy
}

func settle(v uint64) uint64 {
	v *= settleBy
	v ^= v >> 32
	return v * settleBy
}

// id is 4 bytes of time, as in an ObjectId, and 8 that hold number and index.
func (g *generation) id(i int) string {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:4], uint32(g.createdAt(i)/1000))
	binary.BigEndian.PutUint64(b[4:], stir(uint64(g.Number)<<40|uint64(i)))
	return hex.EncodeToString(b[:])
}

// generated says which generated file an id names, hidden or not; nil for none.
func (l *library) generated(id string) (*generation, int) {
	if len(id) != 24 || len(l.generations) == 0 {
		return nil, 0
	}
	b, err := hex.DecodeString(id)
	if err != nil {
		return nil, 0
	}
	v := settle(binary.BigEndian.Uint64(b[4:]))
	number, i := v>>40, int(v&(1<<40-1))
	if number >= uint64(len(l.generations)) || i >= l.generations[number].Count {
		return nil, 0
	}
	if g := l.generations[number]; g.id(i) == id {
		return g, i
	}
	return nil, 0
}

func (g *generation) name(i int) string {
	return "gen" + strconv.Itoa(g.Number) + "_" + strconv.Itoa(i) + ".png"
}

// index reads a path of this generation back into the file's index.
func (g *generation) index(path string) (int, bool) {
	rest, ok := strings.CutPrefix(path, join(g.Folder, "gen"+strconv.Itoa(g.Number)+"_"))
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(strings.TrimSuffix(rest, ".png"))
	return i, err == nil && i >= 0 && i < g.Count && path == join(g.Folder, g.name(i))
}

func (g *generation) record(i int) *record {
	at, id := g.createdAt(i), g.id(i)
	v := stir(g.Seed ^ stir(uint64(i)+1))
	w, h := 1+int(v%64), 1+int(v>>8%64)
	return &record{ID: id, Folder: g.Folder, Name: g.name(i), Created: at, version: version{
		ID: id, Number: 1, Uploaded: at, Updated: at, Blob: "generated",
		Size: plainSize(w, h), MIME: "image/png", Width: w, Height: h,
	}}
}

// plainSize is the length of plainPNG, known without making it: with the deflate
// level "stored" a picture's size follows from its sides.
func plainSize(w, h int) int64 {
	const signature, header, chunks, zlibFrame, blockHead = 8, 13, 3 * 12, 2 + 4, 5
	return int64(signature + header + chunks + zlibFrame + 2*blockHead + h*(w+1))
}

// plainPNG is a grey picture of w × h, at most 64 × 64.
func plainPNG(w, h int) []byte {
	var packed bytes.Buffer
	z, _ := zlib.NewWriterLevel(&packed, zlib.NoCompression)
	_, _ = z.Write(bytes.Repeat(append([]byte{0}, bytes.Repeat([]byte{0x77}, w)...), h))
	_ = z.Close()
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	header = append(header, 8, 0, 0, 0, 0)
	out := []byte("\x89PNG\r\n\x1a\n")
	for _, c := range []struct {
		kind string
		data []byte
	}{{"IHDR", header}, {"IDAT", packed.Bytes()}, {"IEND", nil}} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(c.data)))
		body := append([]byte(c.kind), c.data...)
		out = binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	}
	return out
}

// generateFiles is POST /_emulator/files/generate.
func (e *Emulator) generateFiles(r *http.Request) answer {
	ask := struct {
		Count  int       `json:"count"`
		Folder string    `json:"folder"`
		Spread *Duration `json:"spread"`
	}{}
	if err := decodeStrict(r.Body, &ask); err != nil {
		return refuse(400, err.Error())
	}
	if ask.Count < 1 || ask.Count > maxGenerated {
		return refuse(400, fmt.Sprintf("count is between 1 and %d.", maxGenerated))
	}
	where, err := cleanFolder(ask.Folder)
	if err != nil {
		return refuse(400, err.Error())
	}
	spread := 365 * 24 * time.Hour
	if ask.Spread != nil {
		spread = time.Duration(*ask.Spread)
	}
	return e.change(func() ([]change, answer) {
		now := e.Now()
		g := &generation{
			Number: len(e.lib.generations), Count: ask.Count, Folder: where, Seed: e.settings.Load().Seed,
			First: now.Add(-spread).UnixMilli(), Spread: spread.Milliseconds(),
		}
		changes := append(e.makeFolders(where, now.UnixMilli()), change{Generate: g})
		return changes, ok(map[string]any{"count": g.Count, "folder": g.Folder, "firstFileId": g.id(0), "lastFileId": g.id(g.Count - 1)})
	})
}
