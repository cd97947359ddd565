// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// instanceNamespace is the namespace that the conventions give for UUIDs of service.instance.id.
// https://opentelemetry.io/docs/specs/semconv/registry/attributes/service/
var instanceNamespace = uuid.MustParse("4d63009a-8d0f-11ee-aad7-4c796ed8e320")

// hostAttributes describe the machine. What the SDK finds is for its own process, and this is the part
// that is the same for all.
func hostAttributes() []attribute.KeyValue {
	r, _ := resource.New(context.Background(), resource.WithHost(), resource.WithHostID(), resource.WithOSType()) // what it cannot find is left out
	return r.Attributes()
}

// resource describes a process by the semantic conventions. The command line is left out: it may hold
// secrets. The later entries win, so that what a user has set stays.
func (i *Inspector) resource(t *Target) []attribute.KeyValue {
	attrs := slices.Clone(i.host)
	attrs = append(attrs,
		semconv.ServiceName(t.Service),
		semconv.ServiceInstanceID(i.instanceID(t)),
		semconv.ProcessPID(int(t.PID)),
		semconv.TelemetrySDKName("breadcrumb"),
	)
	if t.Exe != "" {
		attrs = append(attrs,
			semconv.ProcessExecutableName(clean(path.Base(t.Exe))),
			semconv.ProcessExecutablePath(clean(t.Exe)))
	}
	if i.version != "" {
		attrs = append(attrs, semconv.TelemetrySDKVersion(i.version))
	}
	if t.Language != Unknown {
		attrs = append(attrs, semconv.TelemetrySDKLanguageKey.String(string(t.Language)))
	}
	if name := t.runtimeName(); name != "" {
		attrs = append(attrs, semconv.ProcessRuntimeName(name))
		if t.Version != "" {
			attrs = append(attrs, semconv.ProcessRuntimeVersion(clean(t.Version)))
		}
	}
	if t.ContainerID != "" {
		attrs = append(attrs, semconv.ContainerID(t.ContainerID))
	}
	for _, kv := range t.extra {
		if kv.key != string(semconv.ServiceNameKey) { // t.Service has it, or what outranks it
			attrs = append(attrs, attribute.String(kv.key, kv.value))
		}
	}
	// A set keeps the last value of each key, and sorts.
	set := attribute.NewSet(attrs...)
	return set.ToSlice()
}

// instanceID is the same for as long as the process lives, and never again.
func (i *Inspector) instanceID(t *Target) string {
	if t.Start == 0 {
		return uuid.NewString() // it ended unseen: nobody will ask again
	}
	return uuid.NewSHA1(instanceNamespace, fmt.Appendf(nil, "%s/%d/%d", i.boot, t.PID, t.Start)).String()
}

// runtimeName is process.runtime.name, or empty where there is no runtime.
func (t *Target) runtimeName() string {
	if t.runtime != "" {
		return t.runtime
	}
	switch t.Language {
	case Python:
		return "cpython"
	case Java:
		return "OpenJDK Runtime Environment"
	case DotNet:
		return ".NET"
	case Rust, CPP:
		return ""
	}
	return string(t.Language)
}

// parseEnvironment takes from variables what names a service.
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
func parseEnvironment(vars []string) environment {
	var e environment
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "OTEL_SERVICE_NAME":
			e.service = clean(strings.TrimSpace(value))
		case "OTEL_RESOURCE_ATTRIBUTES":
			e.attributes = parseAttributes(value)
		case "FLASK_APP":
			e.flaskApp = value
		}
	}
	for _, kv := range e.attributes {
		if kv.key == string(semconv.ServiceNameKey) && e.service == "" {
			e.service = kv.value
		}
	}
	return e
}

// maxAttributes bounds what one environment can add to every span.
const maxAttributes = 64

// parseAttributes reads key=value pairs with percent-encoded values; pairs that are none are left out.
// https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
func parseAttributes(s string) []keyValue {
	var attrs []keyValue
	for pair := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(pair, "=")
		key = clean(strings.TrimSpace(key))
		if !ok || key == "" || len(attrs) == maxAttributes {
			continue
		}
		value = strings.TrimSpace(value)
		if decoded, err := url.PathUnescape(value); err == nil {
			value = decoded
		}
		attrs = append(attrs, keyValue{key, clean(value)})
	}
	return attrs
}

// merge is a followed by b; where both have a key, b's value.
func merge(a, b []keyValue) []keyValue {
	if len(a) == 0 {
		return b
	}
	merged := make([]keyValue, 0, len(a)+len(b))
	for _, kv := range a {
		if !slices.ContainsFunc(b, func(o keyValue) bool { return o.key == kv.key }) {
			merged = append(merged, kv)
		}
	}
	return append(merged, b...)
}

// maxText bounds what a stranger can put into a name.
const maxText = 1024

// clean makes a stranger's text fit for export: valid UTF-8, no control characters, not endless.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
}

// Escape is clean for a terminal: nothing is hidden and nothing moves the cursor.
func Escape(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}
