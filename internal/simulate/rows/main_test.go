package rows_test

import (
	"testing"

	"github.com/trueup/trueup/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
