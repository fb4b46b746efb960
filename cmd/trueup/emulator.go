package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/telemetry"
)

func emulatorCommand(p *program) *cobra.Command {
	var webhookURL string
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Run the stand-in for ImageKit alone",
		Long: `Run the stand-in for ImageKit at TRUEUP_EMULATOR_ADDR, faithful enough for ImageKit's
official SDKs: give them IMAGE_KIT_BASE_URL. Library and settings live under
TRUEUP_DATA_DIR and survive everything. Keys that IMAGEKIT_PUBLIC_KEY, IMAGEKIT_PRIVATE_KEY
and IMAGEKIT_WEBHOOK_SECRET do not give are made once and kept there. It is controlled
under /_emulator/.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.emulate(cmd.Context(), webhookURL) },
	}
	cmd.Flags().StringVar(&webhookURL, "webhook-url", "", "where its webhooks go (default: nowhere, until PATCH /_emulator/settings)")
	return cmd
}

// standIn is what a client of the emulator needs.
type standIn struct {
	URL           string `json:"IMAGE_KIT_BASE_URL"`
	Endpoint      string `json:"IMAGEKIT_URL_ENDPOINT"`
	PublicKey     string `json:"IMAGEKIT_PUBLIC_KEY"`
	PrivateKey    string `json:"IMAGEKIT_PRIVATE_KEY"`
	WebhookSecret string `json:"IMAGEKIT_WEBHOOK_SECRET"`
}

func (p *program) emulate(ctx context.Context, webhookURL string) error {
	c, err := p.load(config.Emulator)
	if err != nil {
		return err
	}
	kept, err := loadDevKeys(c.Queue.DataDir)
	if err != nil {
		return err
	}
	s := standIn{
		PublicKey:     cmp.Or(c.ImageKit.PublicKey, kept.PublicKey),
		PrivateKey:    cmp.Or(c.ImageKit.PrivateKey.Reveal(), kept.PrivateKey),
		WebhookSecret: cmp.Or(first(c.ImageKit.WebhookSecrets).Reveal(), kept.WebhookSecret),
	}
	e, err := emulator.New(emulator.Config{
		Addr: c.Listen.EmulatorAddr, Dir: filepath.Join(c.Queue.DataDir, "emulator"), AccountID: devAccount,
		PublicKey: s.PublicKey, PrivateKey: s.PrivateKey, WebhookSecret: s.WebhookSecret, WebhookURL: webhookURL,
		Logger: telemetry.NewLogger(telemetry.LogConfig{Out: p.stderr, Format: c.Log.Format, Level: c.Log.Level}),
	})
	if err != nil {
		return err
	}
	if err := e.Listen(); err != nil {
		return errors.Join(err, e.Close())
	}
	s.URL, s.Endpoint = e.URL(), e.Endpoint()
	if err := p.introduce(s, kept); err != nil {
		return errors.Join(err, e.Close())
	}
	return e.Run(ctx)
}

// introduce says where it is; keys are shown only where they are our own invention.
func (p *program) introduce(s standIn, kept *devKeys) error {
	for _, key := range []struct{ shown, ours *string }{
		{&s.PublicKey, &kept.PublicKey}, {&s.PrivateKey, &kept.PrivateKey}, {&s.WebhookSecret, &kept.WebhookSecret},
	} {
		if *key.shown != *key.ours {
			*key.shown = "<as configured>"
		}
	}
	return p.result(s, func() error {
		p.line("ImageKit's stand-in answers at %s", s.URL)
		p.line("  IMAGE_KIT_BASE_URL=%s", s.URL)
		p.line("  IMAGEKIT_URL_ENDPOINT=%s", s.Endpoint)
		p.line("  IMAGEKIT_PUBLIC_KEY=%s", s.PublicKey)
		p.line("  IMAGEKIT_PRIVATE_KEY=%s", s.PrivateKey)
		p.line("  IMAGEKIT_WEBHOOK_SECRET=%s", s.WebhookSecret)
		return nil
	})
}
