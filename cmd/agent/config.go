// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"breadcrumb/bpf"
	"breadcrumb/discovery"
	"breadcrumb/export"
	"breadcrumb/export/otlp"
	"breadcrumb/probes/protocol/http1"
	"breadcrumb/probes/protocol/sql"

	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v4"
)

// Config is the configuration file: each part is the configuration of the package that uses it. What is
// given later wins: the defaults, the file, the standard OTEL_* variables, the flags.
type Config struct {
	// Rules select processes, in order; the first that matches decides.
	Rules []discovery.Rule `yaml:"rules"`
	// Output is "tree", "json" or "none"; empty: tree on a terminal when no endpoint is set, else none.
	Output string `yaml:"output"`
	// MetricsAddr is where /metrics, /healthz and /debug/pprof are served; empty: nowhere.
	MetricsAddr string `yaml:"metrics_addr"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log_level"`

	// InferParents gives calls of which nothing else tells for whom they were made a parent by time, with a confidence.
	InferParents bool `yaml:"infer_parents"`

	HTTP   http1.Config  `yaml:"http"`
	SQL    sql.Config    `yaml:"sql"`
	OTLP   otlp.Config   `yaml:"otlp"`
	Queue  export.Config `yaml:"queue"`
	Kernel bpf.Config    `yaml:"kernel"`
}

func defaultConfig() Config {
	return Config{LogLevel: "info", HTTP: http1.Default(), OTLP: otlp.Default(), Queue: export.Default(), Kernel: bpf.Default()}
}

// readConfig reads the file over what c holds.
func (c *Config) readConfig(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	return nil
}

// validate names everything that is wrong.
func (c *Config) validate() error {
	var errs []error
	switch c.Output {
	case "", "tree", "json", "none":
	default:
		errs = append(errs, fmt.Errorf("output is %q: must be tree, json or none", c.Output))
	}
	if _, err := zapcore.ParseLevel(c.LogLevel); err != nil {
		errs = append(errs, fmt.Errorf("log_level is %q: must be debug, info, warn or error", c.LogLevel))
	}
	errs = append(errs, prefixed("http", c.HTTP.Validate()), prefixed("otlp", c.OTLP.Validate()), prefixed("queue", c.Queue.Validate()),
		prefixed("kernel", c.Kernel.Validate()))
	return errors.Join(errs...)
}

func prefixed(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}
