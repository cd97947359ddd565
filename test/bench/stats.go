// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"math"
	"slices"
)

// spread is what is told of several figures: the one in the middle, and how far they are apart.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// spreadOf sums up figures; those that are not a number do not count.
func spreadOf(figures []float64) spread {
	figures = slices.DeleteFunc(slices.Clone(figures), math.IsNaN)
	if len(figures) == 0 {
		return spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	slices.Sort(figures)
	half := len(figures) / 2
	median := figures[half]
	if len(figures)%2 == 0 {
		median = (figures[half-1] + figures[half]) / 2
	}
	return spread{Median: median, Min: figures[0], Max: figures[len(figures)-1], N: len(figures)}
}

// percentile is the smallest of the sorted samples that at least p percent of them do not exceed. It is
// exact: no sample is put into a bucket.
func percentile[T cmp.Ordered](sorted []T, p float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratio is a ÷ b, and not a number where there is nothing to compare with.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// figures takes one figure from each of many things.
func figures[T any](list []T, figure func(T) float64) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = figure(v)
	}
	return out
}
