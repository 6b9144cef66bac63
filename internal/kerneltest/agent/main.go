package main

import "fmt"

func main() { fmt.Println("agent: nothing to do yet") }
