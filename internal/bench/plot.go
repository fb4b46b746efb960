package bench

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The plot's sides, and where its axes stand.
const (
	plotWidth, plotHeight  = 760, 460
	plotLeft, plotRight    = 70, 730
	plotTop, plotBottom    = 50, 300
	legendTop, legendEvery = 350, 18
)

// colours of the lines, told apart also by those who see few.
func colour(i int) string {
	return []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"}[i%6]
}

// plot draws lines over sizes on a logarithmic axis, as a whole SVG document. The other
// axis begins at zero, so that what looks flat is.
func plot(title, x, y string, lines []series) []byte {
	low, high, top := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range lines {
		for _, p := range l.points {
			size := math.Log10(float64(p.size))
			low, high, top = min(low, size), max(high, size), max(top, p.cost)
		}
	}
	switch {
	case low > high: // there is no point at all
		low, high = 0, 1
	case low == high:
		low, high = low-0.5, high+0.5
	}
	if top <= 0 {
		top = 1
	}
	at := func(p point) (float64, float64) {
		return plotLeft + (math.Log10(float64(p.size))-low)/(high-low)*(plotRight-plotLeft),
			plotBottom - p.cost/(1.1*top)*(plotBottom-plotTop)
	}
	var b bytes.Buffer
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) } // a buffer takes all
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, plotWidth, plotHeight)
	put(`<rect width="100%%" height="100%%" fill="white"/>`)
	put(`<text x="%d" y="24" font-size="16">%s</text>`, plotLeft, html.EscapeString(title))
	put(`<text x="%d" y="42">%s</text>`, plotLeft, html.EscapeString(y))
	put(`<text x="%d" y="%d" text-anchor="end">%s</text>`, plotRight, plotBottom+34, html.EscapeString(x))
	for i := range 5 {
		cost := top * float64(i) / 4
		_, h := at(point{size: 1, cost: cost})
		put(`<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, plotLeft, h, plotRight, plotLeft-6, h+4, number(cost))
	}
	for e := math.Ceil(low); e <= high; e++ {
		w, _ := at(point{size: int(math.Pow(10, e))})
		put(`<path d="M%.1f %dv6" stroke="black"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`, w, plotBottom, w, plotBottom+18, thousands(int64(math.Pow(10, e))))
	}
	for i, l := range lines {
		path := ""
		for j, p := range l.points {
			w, h := at(p)
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(j, 1)], w, h)
			put(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %s</title></circle>`, w, h, colour(i), thousands(int64(p.size)), number(p.cost))
		}
		put(`<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`, path, colour(i))
		key := legendTop + i*legendEvery
		put(`<path d="M%d %dh24" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`, plotLeft, key, colour(i), plotLeft+32, key+4, html.EscapeString(l.name))
	}
	put(`</svg>`)
	return b.Bytes()
}
