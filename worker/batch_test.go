package worker

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/worker/verify"
)

// One question serves every event of a file, so it must satisfy the most demanding.
func TestOneQuestionServesAllEventsOfAFile(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	report := event.Pending{Event: event.Event{Source: event.Client, Origin: event.Client, Kind: event.KindReport}}
	created := event.Pending{Event: event.Event{Source: event.Webhook, Origin: event.Webhook, Kind: "file.created", UpdatedAt: early}}
	updated := event.Pending{Event: event.Event{Source: event.Webhook, Origin: event.Webhook, Kind: "file.updated", UpdatedAt: late}}
	undated := event.Pending{Event: event.Event{Source: event.Webhook, Origin: event.Webhook, Kind: "upload.post-transform.success"}}
	deleted := event.Pending{Event: event.Event{Source: event.Webhook, Origin: event.Webhook, Kind: event.KindDeleted}}
	claimed := event.Pending{Event: event.Event{Source: event.Replay, Origin: event.Client, Kind: event.KindReport}}
	announced := event.Pending{Event: event.Event{Source: event.Replay, Origin: event.Webhook, Kind: event.KindDeleted}}
	unsigned := event.Pending{Event: event.Event{Source: event.Reconcile, Origin: event.Reconcile, Kind: event.KindDeleted}}
	recheck := event.Pending{Event: event.Event{Source: event.Reconcile, Origin: event.Reconcile, Kind: event.KindRecheck}}
	retried := event.Pending{Event: created.Event, Retried: true}

	for name, c := range map[string]struct {
		events []event.Pending
		want   verify.Ask
	}{
		"ReportWantsNews":                  {[]event.Pending{report}, verify.Ask{NewsOnly: true}},
		"WebhookWantsItsUpdate":            {[]event.Pending{created}, verify.Ask{UpdatedAt: early}},
		"TheNewestUpdateCounts":            {[]event.Pending{updated, created}, verify.Ask{UpdatedAt: late}},
		"ReportBesideWebhook":              {[]event.Pending{created, report}, verify.Ask{UpdatedAt: early, NewsOnly: true}},
		"WebhookWithoutDateGoesByID":       {[]event.Pending{undated}, verify.Ask{ByID: true}},
		"SignedDeletionIsAnnounced":        {[]event.Pending{created, deleted}, verify.Ask{UpdatedAt: early, ByID: true, Announced: true}},
		"ReplayKeepsItsFloorAndGoesByID":   {[]event.Pending{claimed}, verify.Ask{Priority: verify.Replay, ByID: true, NewsOnly: true}},
		"ReplayedDeletionIsStillAnnounced": {[]event.Pending{announced}, verify.Ask{Priority: verify.Replay, ByID: true, Announced: true}},
		"UnsignedDeletionAnnouncesNothing": {[]event.Pending{unsigned}, verify.Ask{Priority: verify.Run, ByID: true}},
		"RecheckGoesByID":                  {[]event.Pending{recheck}, verify.Ask{Priority: verify.Run, ByID: true}},
		"RetryGoesByID":                    {[]event.Pending{retried}, verify.Ask{UpdatedAt: early, ByID: true}},
		"TheMostUrgentDecides":             {[]event.Pending{recheck, report}, verify.Ask{Priority: verify.Live, ByID: true, NewsOnly: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := verify.Ask{Priority: verify.Run}
			for _, p := range c.events {
				got = with(got, p)
			}
			if got != c.want {
				t.Errorf("ask = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestEventsAreTakenOnceAndGroupedByFile(t *testing.T) {
	env := func(ids ...string) *event.Delivery {
		d := &event.Delivery{}
		for _, id := range ids {
			d.Envelope.Events = append(d.Envelope.Events, event.Event{ID: id, FileID: id[:1]})
		}
		return d
	}
	pending := pendingOf([]*event.Delivery{env("b1", "a1"), env("a1", "a2")})
	if len(pending) != 3 {
		t.Errorf("%d events of three distinct ids", len(pending))
	}
	groups := byFile(pending)
	if len(groups) != 2 || groups[0].fileID != "a" || len(groups[0].events) != 2 || groups[1].fileID != "b" {
		t.Errorf("groups %+v, want a with two events, then b", groups)
	}
}
