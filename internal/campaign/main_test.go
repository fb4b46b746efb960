package campaign

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/testenv"
)

// Toxiproxy leaves a connection's goroutines behind where a toxic closed it while they
// had bytes in hand.
func TestMain(m *testing.M) {
	testenv.Main(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}
