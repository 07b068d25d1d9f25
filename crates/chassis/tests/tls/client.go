// A client on Go's own TLS: GETs with a client certificate, the last answer's body on standard output. Each GET is on a
// connection of its own, so that all but the first may resume a session.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	url, certificate, key, authority := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	own, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	pem, err := os.ReadFile(authority)
	check(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	config := &tls.Config{
		Certificates:       []tls.Certificate{own},
		RootCAs:            trusted,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	var body []byte
	for range 3 {
		answer, err := client.Get(url)
		check(err)
		body, err = io.ReadAll(answer.Body)
		check(err)
		check(answer.Body.Close())
	}
	fmt.Print(string(body))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
