// SPDX-License-Identifier: Apache-2.0

package sql

import "fmt"

// Config says what is shown of statements.
type Config struct {
	// Text is what db.query.text shows: sanitised (no values), off (nothing), or raw (everything, passwords included).
	Text Policy `yaml:"text"`
}

var policies = map[string]Policy{"sanitised": Sanitised, "off": Off, "raw": Raw}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(text []byte) error {
	known, ok := policies[string(text)]
	if !ok {
		return fmt.Errorf("%q is none of sanitised, off, raw", text)
	}
	*p = known
	return nil
}
