// SPDX-License-Identifier: Apache-2.0

// Nohttp has no net/http in it.
package main

func main() { println("hello") }
