package main

import (
	"errors"
	"os"
	"strings"
	"time"
)

// fn does what its input asks for, and sends back every other input as it came.
func fn(data string, headers map[string]string) (string, error) {
	word, argument, _ := strings.Cut(data, " ")
	switch word {
	case "do:fail":
		return "", errors.New("the function says no")
	case "do:crash":
		os.Exit(3)
	case "do:sleep":
		time.Sleep(time.Hour)
	case "do:env":
		return os.Getenv(argument), nil
	case "do:header":
		return headers[argument], nil
	}
	return data, nil
}
