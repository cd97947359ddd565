// SPDX-License-Identifier: Apache-2.0

package export

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Config bounds the queue.
type Config struct {
	// MaxQueueSize is the number of spans that wait at most; beyond it the oldest are dropped and
	// counted. At 10 000 spans a second the default bridges three seconds without an endpoint, at 500
	// a second a minute. A waiting span takes about 1 KiB.
	MaxQueueSize int `yaml:"max_queue_size"`
	// MaxExportBatchSize is the number of spans sent at once, at most. The standard's 512 costs a third
	// more CPU per span than 2048 (HTTP/2 flow control); beyond 2048 nothing is gained.
	MaxExportBatchSize int `yaml:"max_export_batch_size"`
	// ScheduleDelay is how long a span waits at most for others to fill its batch. The standard's five
	// seconds serve a process that reports on itself; who starts an agent wants to see something.
	ScheduleDelay time.Duration `yaml:"schedule_delay"`
	// ExportTimeout ends an attempt to export one batch. The batch is then tried again.
	ExportTimeout time.Duration `yaml:"export_timeout"`
}

// Default is the configuration that needs no thought.
func Default() Config {
	return Config{
		MaxQueueSize:       32768,
		MaxExportBatchSize: 2048,
		ScheduleDelay:      time.Second,
		ExportTimeout:      30 * time.Second,
	}
}

// FromEnv overlays the standard OTEL_BSP_* variables. As the standard asks, a value that cannot be used
// changes nothing; the error names all of them and is meant for a warning.
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor
func (c *Config) FromEnv(getenv func(string) string) error {
	var errs []error
	number := func(name string, least int, set func(int)) {
		text := getenv(name)
		if text == "" {
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < least {
			errs = append(errs, fmt.Errorf("%s=%q: want a number, %d or more", name, text, least))
			return
		}
		set(n)
	}
	ms := func(d *time.Duration) func(int) {
		return func(n int) { *d = time.Duration(n) * time.Millisecond }
	}
	number("OTEL_BSP_MAX_QUEUE_SIZE", 1, func(n int) {
		c.MaxQueueSize = n
		c.MaxExportBatchSize = min(c.MaxExportBatchSize, n)
	})
	number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, func(n int) { c.MaxExportBatchSize = min(n, c.MaxQueueSize) })
	number("OTEL_BSP_SCHEDULE_DELAY", 0, ms(&c.ScheduleDelay))
	number("OTEL_BSP_EXPORT_TIMEOUT", 1, ms(&c.ExportTimeout))
	return errors.Join(errs...)
}

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.MaxQueueSize < 1 {
		errs = append(errs, fmt.Errorf("max_queue_size is %d, must be at least 1", c.MaxQueueSize))
	}
	if c.MaxExportBatchSize < 1 || c.MaxExportBatchSize > c.MaxQueueSize {
		errs = append(errs, fmt.Errorf("max_export_batch_size is %d, must be from 1 to max_queue_size (%d)",
			c.MaxExportBatchSize, c.MaxQueueSize))
	}
	if c.ScheduleDelay < 0 {
		errs = append(errs, fmt.Errorf("schedule_delay is %s, must not be negative", c.ScheduleDelay))
	}
	if c.ExportTimeout <= 0 {
		errs = append(errs, fmt.Errorf("export_timeout is %s, must be positive", c.ExportTimeout))
	}
	return errors.Join(errs...)
}
