package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/bench/load"
	"github.com/trueup/trueup/internal/emulator"
)

// Parts are what runs as a process of its own: one of these words follows PartCommand.
// Each ends when its standard input does, so none outlives who started it.
const (
	partLoad     = "load"
	partEmulator = "emulator"
	partQueue    = "queue"
)

// Part runs one part; the hidden command calls it.
func Part(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	switch name {
	case partLoad:
		return load.Serve(ctx, in, out)
	case partEmulator:
		return serveEmulator(ctx, in, out)
	case partQueue:
		return serveQueue(ctx, in, out)
	}
	return fmt.Errorf("%q is no part of the bench", name)
}

// untilClosed is a context that ends with in, too.
func untilClosed(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, cancel
}

// accountConfig is what serveEmulator reads.
type accountConfig struct {
	Dir        string `json:"dir"`
	PublicKey  string `json:"publicKey"`
	PrivateKey string `json:"privateKey"`
}

// serveEmulator reads what account it is and says its address.
func serveEmulator(ctx context.Context, in io.Reader, out io.Writer) error {
	reader := bufio.NewReader(in)
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return err
	}
	var c accountConfig
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	e, err := emulator.New(emulator.Config{Dir: c.Dir, PublicKey: c.PublicKey, PrivateKey: c.PrivateKey})
	if err != nil {
		return err
	}
	if err := e.Listen(); err != nil { //nolint:contextcheck // binding a port waits for nothing
		return errors.Join(err, e.Close())
	}
	if _, err := fmt.Fprintln(out, e.URL()); err != nil {
		return errors.Join(err, e.Close())
	}
	ctx, cancel := untilClosed(ctx, reader)
	defer cancel()
	return e.Run(ctx)
}

// process is a part, or another program, that was started.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *bytes.Buffer
}

// start starts a program in the stage's folder, with only the environment given.
func (s *stage) start(ctx context.Context, env map[string]string, program string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Dir = s.dir
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	p := &process{cmd: cmd, stderr: &bytes.Buffer{}}
	cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	return p, nil
}

// end closes the process's standard input and waits for it.
func (p *process) end() error {
	_ = p.stdin.Close()
	return p.wait()
}

// wait returns the process's end with its last words where that was a bad one.
func (p *process) wait() error {
	_, _ = io.Copy(io.Discard, p.stdout)
	if err := p.cmd.Wait(); err != nil {
		text := strings.TrimSpace(p.stderr.String())
		return fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args[1:], " "), err, text[max(0, len(text)-500):])
	}
	return nil
}

// load has another process run the job.
func (s *stage) load(ctx context.Context, j load.Job) (*load.Result, error) {
	p, err := s.start(ctx, nil, s.Self, s.PartCommand, partLoad)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.stdin).Encode(j); err != nil {
		return nil, errors.Join(err, p.end())
	}
	var r load.Result
	err = json.NewDecoder(p.stdout).Decode(&r)
	if ended := p.end(); err != nil || ended != nil {
		return nil, fmt.Errorf("load: %w", errors.Join(ended, err))
	}
	return &r, nil
}
