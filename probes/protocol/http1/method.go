// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Config says how requests are described.
type Config struct {
	// KnownMethods are the methods that http.request.method may be; case matters. That of any other request is
	// _OTHER, so that a client cannot make up ever new ones.
	KnownMethods []string `yaml:"known_methods"`
}

// Default knows the methods that the semantic conventions do.
func Default() Config { return Config{KnownMethods: slices.Clone(methodNames[1:])} }

// FromEnv overlays the variable of the semantic conventions. As OpenTelemetry asks, a value that cannot be
// used leaves what was there, and is worth a warning: the error.
// https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (http.request.method)
func (c *Config) FromEnv(getenv func(string) string) error {
	const name = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"
	text := getenv(name)
	if text == "" {
		return nil
	}
	var methods []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			methods = append(methods, item)
		}
	}
	fromEnv := Config{KnownMethods: methods}
	if err := fromEnv.Validate(); err != nil {
		return fmt.Errorf("%s=%q: %w", name, text, err)
	}
	*c = fromEnv
	return nil
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	for _, m := range c.KnownMethods {
		if m == "" || len(m) > maxMethod || strings.IndexFunc(m, func(r rune) bool { return r > 0x7f || !isToken[r] }) >= 0 {
			errs = append(errs, fmt.Errorf("known_methods holds %q: not a method", m))
		}
	}
	return errors.Join(errs...)
}

// method is a method that has a meaning here or is in the default list, or another.
type method uint8

const (
	methodOther method = iota
	methodConnect
	methodDelete
	methodGet
	methodHead
	methodOptions
	methodPatch
	methodPost
	methodPut
	methodQuery
	methodTrace
	methods // how many
)

var methodNames = [methods]string{"HTTP", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}

func methodOf(b []byte) method {
	switch string(b) {
	case "GET":
		return methodGet
	case "POST":
		return methodPost
	case "PUT":
		return methodPut
	case "DELETE":
		return methodDelete
	case "HEAD":
		return methodHead
	case "OPTIONS":
		return methodOptions
	case "PATCH":
		return methodPatch
	case "CONNECT":
		return methodConnect
	case "TRACE":
		return methodTrace
	case "QUERY":
		return methodQuery
	}
	return methodOther
}

// endsMethod says whether b begins with the end of one of the default methods, without its start.
func endsMethod(b []byte) bool {
	i := bytes.IndexByte(b, ' ')
	if i < 0 {
		return false
	}
	for _, name := range methodNames[1:] {
		if i < len(name) && string(b[:i]) == name[len(name)-i:] {
			return true
		}
	}
	return false
}

// label is how spans call a method: the span's name and http.request.method.
type label struct {
	name  string
	attr  attribute.KeyValue
	other bool // the method itself goes into http.request.method_original
}

// labels are the labels of all methods.
type labels struct {
	of   [methods]label
	more map[string]*label // known ones of which nothing else is known
}

func newLabels(cfg Config) *labels {
	l := &labels{more: map[string]*label{}}
	for i := range l.of {
		l.of[i] = label{name: methodNames[methodOther], attr: semconv.HTTPRequestMethodOther, other: true}
	}
	for _, name := range cfg.KnownMethods {
		known := &label{name: name, attr: semconv.HTTPRequestMethodKey.String(name)}
		if m := methodOf([]byte(name)); m != methodOther {
			l.of[m] = *known
		} else {
			l.more[name] = known
		}
	}
	return l
}

// label returns that of a method, m, whose name is given.
func (l *labels) label(m method, name []byte) *label {
	if m == methodOther {
		if known, ok := l.more[string(name)]; ok {
			return known
		}
	}
	return &l.of[m]
}
