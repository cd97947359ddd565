// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Glob is a pattern for paths. "*" and "?" stop at a slash, "**" does not; "[a-z]" is one of a class,
// "[^a-z]" or "[!a-z]" one that is not in it, and "\" takes the next character as it is. A pattern without
// a slash is for the last component, one that begins with a slash for the whole path, and any other for
// the end of the path. The zero Glob matches nothing.
type Glob struct {
	pattern string
	re      *regexp.Regexp
	base    bool
}

// ParseGlob reads a pattern.
func ParseGlob(pattern string) (Glob, error) {
	if pattern == "" {
		return Glob{}, fmt.Errorf(`empty pattern: write "**" to match everything`)
	}
	g := Glob{pattern: pattern, base: !strings.Contains(pattern, "/")}
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	if !g.base && pattern[0] != '/' {
		re.WriteString(`(?:.*/)?`)
	}
	for i := 0; i < len(pattern); i++ {
		rest := pattern[i:]
		switch c := pattern[i]; {
		case strings.HasPrefix(rest, "**/"):
			re.WriteString(`(?:.*/)?`)
			i += 2
		case strings.HasPrefix(rest, "**"):
			re.WriteString(`.*`)
			i++
		case c == '*':
			re.WriteString(`[^/]*`)
		case c == '?':
			re.WriteString(`[^/]`)
		case c == '[':
			class, err := globClass(rest)
			if err != nil {
				return Glob{}, fmt.Errorf("pattern %q: %w", pattern, err)
			}
			re.WriteString(strings.Replace(strings.Replace(class, "[!", "[^", 1), "[^", "[^/", 1))
			i += len(class) - 1
		case c == '\\':
			if i++; i == len(pattern) {
				return Glob{}, fmt.Errorf(`pattern %q ends in "\": write "\\" for a backslash`, pattern)
			}
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		default:
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	re.WriteString(`\z`)
	compiled, err := regexp.Compile(re.String())
	if err != nil {
		return Glob{}, fmt.Errorf(`pattern %q: %w: write "\[" for a bracket`, pattern, err)
	}
	g.re = compiled
	return g, nil
}

// globClass is the class that s begins with. It means the same in a regular expression.
func globClass(s string) (string, error) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' || s[i] == '/' || s[i] == '[':
			return "", fmt.Errorf(`%q in a class: name the characters without "\", "/" and "["`, s[i])
		case s[i] == ']' && i > 1 && s[1:i] != "!" && s[1:i] != "^":
			return s[:i+1], nil
		}
	}
	return "", fmt.Errorf(`"[" without "]": write "\[" for a bracket`)
}

// Match says whether the pattern is for name.
func (g Glob) Match(name string) bool {
	if g.re == nil || name == "" {
		return false
	}
	if g.base {
		name = path.Base(name)
	}
	return g.re.MatchString(name)
}

// MatchAncestor says whether the pattern is for name or for a directory that it lies in.
func (g Glob) MatchAncestor(name string) bool {
	for name != "" {
		if g.Match(name) {
			return true
		}
		// Not path.Dir: what is outside of a cgroup namespace begins with "/..".
		i := strings.LastIndexByte(name, '/')
		if i == 0 && name != "/" {
			i = 1 // the root
		}
		name = name[:max(i, 0)]
	}
	return false
}

// String is the pattern.
func (g Glob) String() string { return g.pattern }

// MarshalText returns the pattern.
func (g Glob) MarshalText() ([]byte, error) { return []byte(g.pattern), nil }

// UnmarshalText reads a pattern, for flags and configuration files.
func (g *Glob) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGlob(string(text))
	return err
}
