// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"breadcrumb/discovery"
)

type psCmd struct {
	selection `embed:""`
	Config    string `name:"config" placeholder:"FILE" type:"path" help:"Configuration file, for its rules."`
}

func (c *psCmd) Run() error {
	cfg := defaultConfig()
	if c.Config != "" {
		if err := cfg.readConfig(c.Config); err != nil {
			return err
		}
	}
	selector, err := discovery.NewSelector(append(c.rules(), cfg.Rules...))
	if err != nil {
		return err
	}
	inspector, err := discovery.New(discoveryConfig())
	if err != nil {
		return err
	}
	processes, err := inspector.Processes(selector)
	if err != nil {
		return err
	}
	return processes.Write(os.Stdout)
}
