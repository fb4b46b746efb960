package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/file"
)

// triggered is what became of one sample webhook.
type triggered struct {
	Kind      string `json:"kind"`
	FileID    string `json:"fileId"`
	WebhookID string `json:"webhookId"`
	URL       string `json:"url"`
	Status    int    `json:"status"`
	Answer    string `json:"answer"`
	TookMS    int64  `json:"tookMs"`
}

func triggerCommand(p *program) *cobra.Command {
	var url, fileID string
	cmd := &cobra.Command{
		Use:   "trigger KIND",
		Short: "Send a correctly signed sample webhook to any endpoint",
		Long: `Send one sample webhook of a kind, signed as ImageKit signs it (both header sets), with
IMAGEKIT_WEBHOOK_SECRET, or the secret of the dev in this directory. It is a hint like any
other: a file that ImageKit does not have gets no row. Kinds:

  ` + strings.Join(emulator.WebhookKinds(), "\n  "),
		ValidArgs: emulator.WebhookKinds(),
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return err
			}
			if !slices.Contains(emulator.WebhookKinds(), args[0]) {
				return usagef("there is no webhook of kind %q; there are: %s", args[0], strings.Join(emulator.WebhookKinds(), ", "))
			}
			if fileID != "" && !file.ValidID(fileID) {
				return usagef("%q is no fileId", fileID)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return p.trigger(cmd.Context(), args[0], fileID, url) },
	}
	cmd.Flags().StringVar(&url, "url", "", "where to (default: /webhooks/imagekit of TRUEUP_URL, or of the dev in this directory)")
	cmd.Flags().StringVar(&fileID, "file-id", "", "file it speaks of (default: one that does not exist)")
	return cmd
}

func (p *program) trigger(ctx context.Context, kind, fileID, url string) error {
	url, secret, err := p.webhookTarget(url)
	if err != nil {
		return err
	}
	out := triggered{Kind: kind, FileID: cmp.Or(fileID, inventedID()), WebhookID: "msg_" + ulid.Make().String(), URL: url}
	if err := out.send(ctx, secret.Reveal()); err != nil {
		return err
	}
	err = p.result(out, func() error {
		p.line("%s %s → %s answered %d in %d ms: %s", out.Kind, out.FileID, out.URL, out.Status, out.TookMS, out.Answer)
		return nil
	})
	if err == nil && out.Status/100 != 2 {
		return fmt.Errorf("the webhook was answered %d", out.Status)
	}
	return err
}

// webhookTarget is where to send and with which secret. A secret of the environment
// never goes with the address of a dev.
func (p *program) webhookTarget(url string) (string, config.Secret, error) {
	c, err := p.load(config.OperatorClient)
	if err != nil {
		return "", "", err
	}
	secret, base := first(c.ImageKit.WebhookSecrets), p.env["TRUEUP_URL"]
	if secret == "" {
		dev, err := p.devEnv("IMAGEKIT_WEBHOOK_SECRET is not set")
		if err != nil {
			return "", "", err
		}
		secret, base = config.Secret(dev["IMAGEKIT_WEBHOOK_SECRET"]), cmp.Or(base, dev["TRUEUP_URL"])
	}
	switch {
	case url != "":
		return url, secret, nil
	case base == "":
		return "", "", usagef("where to? say --url, or set TRUEUP_URL")
	}
	return strings.TrimRight(base, "/") + "/webhooks/imagekit", secret, nil
}

// send posts the sample, signed now.
func (o *triggered) send(ctx context.Context, secret string) error {
	now := time.Now()
	body, err := emulator.SampleWebhook(o.Kind, o.FileID, now)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(body))
	if err != nil {
		return usagef("%q is no address to send to", o.URL)
	}
	req.Header = emulator.SignWebhook(secret, o.WebhookID, body, now)
	req.Header.Set("Content-Type", "application/json")
	// A redirect is the answer: what is signed for one place goes to no other.
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("send the webhook: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the webhook's answer: %w", err)
	}
	o.Status, o.Answer, o.TookMS = res.StatusCode, oneLine(answer), time.Since(now).Milliseconds()
	return nil
}

// oneLine is an answer without line breaks and control characters, since it may come
// from anywhere.
func oneLine(body []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, body) == nil {
		body = compact.Bytes()
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(body)))
}

// inventedID is a fileId of ImageKit's form that no file has.
func inventedID() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}
