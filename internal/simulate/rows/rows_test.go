package rows_test

import (
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/rows"
)

var _ service.Rows = (*rows.Door)(nil)
