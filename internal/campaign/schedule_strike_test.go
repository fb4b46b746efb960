package campaign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// strike lets one fault happen at its moment, holds it, and takes it back. A cell counts
// when what was planted has befallen somebody.
func (run *round) strike(f drawnFault) {
	run.at(f.At)
	undo, err := run.begin(f)
	run.tell("%s: %v", f, err)
	if err == nil && !strings.HasPrefix(f.Cell, "imagekit/") {
		run.r.hit(f.Cell)
	}
	if undo == nil {
		return
	}
	<-time.After(f.Hold)
	if err := undo(); err != nil {
		run.tell("end of %s: %v", f, err)
	}
}

// begin does the fault and returns what ends it.
func (run *round) begin(f drawnFault) (undo func() error, err error) {
	parts := strings.Split(f.Cell, "/")
	switch parts[0] {
	case "process":
		return run.r.breakPart(f.Part, parts[2])
	case "link":
		return run.r.Toxic(f.Part, f.toxicOf())
	case "imagekit":
		return run.spoil(f)
	case "cluster":
		return run.breakCluster(parts[2], f)
	}
	return nil, errors.New("no such fault")
}

// breakPart ends or freezes one part.
func (r *rig) breakPart(name, how string) (undo func() error, err error) {
	if r.units[name].pid() == 0 {
		return nil, errors.New("it is down already")
	}
	switch how {
	case "kill9":
		return func() error { return r.Restart(name) }, r.Kill9(name)
	case "immediate":
		return func() error { return r.Restart(name) }, r.pg.immediate()
	case "freeze":
		return func() error { return r.Thaw(name) }, r.Freeze(name)
	}
	return nil, errors.New("no such way to break a part")
}

// spoil makes ImageKit answer badly.
func (run *round) spoil(f drawnFault) (undo func() error, err error) {
	fileID := ""
	if strings.HasSuffix(f.Cell, "/404-flicker") {
		ids := run.ids()
		if len(ids) == 0 {
			return nil, errNotThere
		}
		fileID = ids[f.N%len(ids)]
	}
	from := time.Now()
	id, err := run.r.Fault(f.imagekitFault(fileID))
	if err != nil {
		return nil, err
	}
	if fileID != "" { // somebody has to ask about it meanwhile
		ctx, cancel := context.WithTimeout(context.Background(), senderPatience)
		defer cancel()
		run.r.RawWebhook(ctx, f.N, fmt.Sprintf("flicker-%d-%d", run.s.Seed, f.N), "file.updated", fileID)
	}
	return func() error {
		fired, err := run.r.Fired()
		if err == nil && fired[id] > 0 {
			run.r.hit(f.Cell)
		}
		err = errors.Join(err, run.r.Unplant(id))
		if fileID != "" {
			run.r.noteLie(check.Lie{From: from, To: time.Now(), FileID: fileID})
		}
		return err
	}, nil
}

func (r *rig) noteLie(l check.Lie) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lies = append(r.lies, l)
}

// breakCluster befalls the cluster as a whole.
func (run *round) breakCluster(how string, f drawnFault) (undo func() error, err error) {
	r := run.r
	switch how {
	case "leader-kill9", "leader-freeze":
		leader, err := r.leader()
		if err != nil {
			return nil, err
		}
		return r.breakPart(leader, strings.TrimPrefix(how, "leader-"))
	case "two-of-three":
		first, second := r.node(f.N), r.node(f.N+1)
		return func() error { return errors.Join(r.Restart(first), r.Restart(second)) }, errors.Join(r.Kill9(first), r.Kill9(second))
	case "partition":
		// All its ways to and from the others; trueup still reaches it.
		var undos []func() error
		for name, l := range r.links {
			from, to, _ := strings.Cut(name, "-")
			if strings.HasPrefix(from, "nats") && strings.HasPrefix(to, "nats") && (from == r.node(f.N) || to == r.node(f.N)) {
				undo, broken := l.add(toxic{Kind: "down"})
				undos, err = append(undos, undo), errors.Join(err, broken)
			}
		}
		return func() (err error) {
			for _, undo := range undos {
				err = errors.Join(err, undo())
			}
			return err
		}, err
	}
	return nil, errors.New("no such fault of a cluster")
}

func (r *rig) node(n int) string { return numbered("nats", len(r.nodes))[n%len(r.nodes)] }

// leader is the server that leads the stream now.
func (r *rig) leader() (string, error) {
	js, end, err := r.jetStream()
	if err != nil {
		return "", err
	}
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, strings.ToUpper(streamPrefix)+"_EVENTS")
	if err != nil {
		return "", err
	}
	info := s.CachedInfo().Cluster
	if info == nil || r.units[info.Leader] == nil {
		return "", errors.New("the stream has no leader")
	}
	return info.Leader, nil
}
