// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Config says where spans go. What it leaves open, the standard variables say; what it says wins.
type Config struct {
	// Endpoint is http://host:port (plaintext), https://host:port (TLS), unix:///path or host:port. As
	// the standard has it, the last means TLS unless OTEL_EXPORTER_OTLP_INSECURE is true. The port
	// is 4317 when none is given.
	Endpoint string `yaml:"endpoint"`
	// Compression is "gzip" or "none". Compressing takes more CPU than all the rest of the export: it pays
	// where the network is dear. Default: none.
	Compression string `yaml:"compression"`
}

// Default leaves everything to the standard variables.
func Default() Config { return Config{} }

const (
	tracesPrefix = "OTEL_EXPORTER_OTLP_TRACES_"
	commonPrefix = "OTEL_EXPORTER_OTLP_"
)

// lookup is the value of a standard variable and its name, the one for traces first.
func lookup(getenv func(string) string, suffix string) (name, value string) {
	for _, prefix := range []string{tracesPrefix, commonPrefix} {
		if value := strings.TrimSpace(getenv(prefix + suffix)); value != "" {
			return prefix + suffix, value
		}
	}
	return "", ""
}

// FromEnv takes back what the configuration file says where the environment says something: the client
// reads the variables itself. Flags are applied after it.
func (c *Config) FromEnv(getenv func(string) string) {
	if _, v := lookup(getenv, "ENDPOINT"); v != "" {
		c.Endpoint = ""
	}
	if _, v := lookup(getenv, "COMPRESSION"); v != "" {
		c.Compression = ""
	}
}

// Configured is whether an endpoint is named anywhere; without one nothing is to be exported.
func (c Config) Configured(getenv func(string) string) bool {
	_, env := lookup(getenv, "ENDPOINT")
	return c.Endpoint != "" || env != ""
}

// Validate names everything that is wrong in c. The variables are checked by New.
func (c Config) Validate() error {
	var errs []error
	if c.Endpoint != "" {
		if _, err := c.options(); err != nil {
			errs = append(errs, err)
		}
	}
	switch c.Compression {
	case "", "none", "gzip":
	default:
		errs = append(errs, fmt.Errorf("otlp compression %q: want gzip or none", c.Compression))
	}
	return errors.Join(errs...)
}

// options are those for the endpoint.
func (c Config) options() ([]otlptracegrpc.Option, error) {
	scheme, rest, ok := strings.Cut(c.Endpoint, "://")
	if !ok {
		if strings.HasPrefix(c.Endpoint, "unix:") {
			scheme = "unix"
		} else {
			scheme, rest = "", c.Endpoint
		}
	}
	plaintext := []otlptracegrpc.Option{
		otlptracegrpc.WithInsecure(),
		// Credentials made of OTEL_EXPORTER_OTLP_CERTIFICATE would otherwise win.
		otlptracegrpc.WithTLSCredentials(insecure.NewCredentials()),
	}
	if scheme == "unix" {
		return append(plaintext, otlptracegrpc.WithEndpoint(c.Endpoint)), nil
	}
	u, err := url.Parse("//" + rest)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("otlp endpoint %q: want http://host:port, https://host:port or host:port", c.Endpoint)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "4317")
	}
	switch strings.ToLower(scheme) {
	case "http":
		return append(plaintext, otlptracegrpc.WithEndpoint(host)), nil
	case "https":
		return []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL("https://" + host)}, nil
	case "":
		return []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(host)}, nil
	}
	return nil, fmt.Errorf("otlp endpoint %q: want http:// or https:// instead of %s://", c.Endpoint, scheme)
}

// checkEnv finds what the client would pass over in silence. The client reads the variables itself.
func (c Config) checkEnv(getenv func(string) string) error {
	var errs []error
	if name, v := lookup(getenv, "PROTOCOL"); v != "" && v != "grpc" {
		errs = append(errs, fmt.Errorf("%s=%s: only grpc is spoken here; set %sPROTOCOL=grpc and let the endpoint "+
			"be the collector's gRPC port, usually 4317", name, v, tracesPrefix))
	}
	if name, v := lookup(getenv, "ENDPOINT"); v != "" && c.Endpoint == "" {
		if _, err := url.Parse(v); err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: not a URL; write http://%s for plaintext or https://%s for TLS",
				name, v, v, v))
		}
	}
	for _, suffix := range []string{"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"} {
		if name, v := lookup(getenv, suffix); v != "" {
			if _, err := os.ReadFile(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}
