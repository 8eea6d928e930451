package https_test

import "strings"

// The odd requests whose end servers could see at different places.

func lengths(fields string) string {
	return "POST /odd HTTP/1.1\r\nHOST\r\n" + fields + "\r\n\r\nabcde" + evil
}

func encoded(fields string) string {
	return "POST /odd HTTP/1.1\r\nHOST\r\n" + fields + "\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + evil
}

func chunked(body string) string {
	return "POST /odd HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

var oddLengths = []odd{
	{name: "length", want: "200 200 200", bytes: lengths("Content-Length: 5")},
	{name: "no length", want: "200,200 200,200 200,200", bytes: "POST /odd HTTP/1.1\r\nKEEP\r\n\r\n" + evil},
	{name: "length of a GET", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nContent-Length: 5\r\n\r\nabcde"},
	{name: "length of 0", want: "200 200 200", bytes: lengths("Content-Length: 0")},
	{name: "two lengths, equal", want: "200 200 400", bytes: lengths("Content-Length: 5\r\nContent-Length: 5")},
	{name: "two lengths", want: "400 400 400", bytes: lengths("Content-Length: 5\r\nContent-Length: 6")},
	{name: "two lengths, the first 0", want: "400 400 400", bytes: lengths("Content-Length: 0\r\nContent-Length: 5")},
	{name: "list of lengths, equal", want: "400 400 400", bytes: lengths("Content-Length: 5, 5")},
	{name: "list of lengths", want: "400 400 400", bytes: lengths("Content-Length: 5, 6")},
	{name: "empty length", want: "400 400 400", bytes: lengths("Content-Length:")},
	{name: "length with a plus sign", want: "400 400 400", bytes: lengths("Content-Length: +5")},
	{name: "negative length", want: "400 400 400", bytes: lengths("Content-Length: -5")},
	{name: "length of minus 0", want: "400 400 400", bytes: lengths("Content-Length: -0")},
	{name: "hexadecimal length", want: "400 400 400", bytes: lengths("Content-Length: 0x5")},
	{name: "length with a zero in front", want: "200 200 200", bytes: lengths("Content-Length: 005")},
	{name: "length with a fraction", want: "400 400 400", bytes: lengths("Content-Length: 5.0")},
	{name: "length with an underscore", want: "400 400 400", bytes: lengths("Content-Length: 0_5")},
	{name: "length with a space", want: "400 400 400", bytes: lengths("Content-Length: 5 5")},
	{name: "length in other spaces", want: "400 400 400", bytes: lengths("Content-Length: \x0b5\x0c")},
	{name: "length in wide digits", want: "400 400 400", bytes: lengths("Content-Length: ５")},
	{name: "length above 64 bits", want: "400 400 400", bytes: lengths("Content-Length: 18446744073709551621")},
	{name: "length above 63 bits", want: "400 400 400", bytes: lengths("Content-Length: 9223372036854775813")},
	{name: "length folded", want: "200 200 400", bytes: lengths("Content-Length:\r\n 5")},
	{name: "length, space before the colon", want: "400 400 400", bytes: lengths("Content-Length : 5")},
	{name: "length, an underscore in the name", want: "200 200 200", bytes: lengths("Content_Length: 3\r\nContent-Length: 5")},
	{name: "body cut off", want: "400 400 none", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nContent-Length: 500\r\n\r\nabc", cut: true},
}

var oddEncodings = []odd{
	{name: "chunked", want: "200 200 200", bytes: encoded("Transfer-Encoding: chunked")},
	{name: "chunked GET", want: "200 200 200", bytes: "GET /odd HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"},
	{name: "length and chunked", want: "200 200 400", bytes: encoded("Content-Length: 3\r\nTransfer-Encoding: chunked")},
	{name: "chunked and length", want: "200 200 400", bytes: encoded("Transfer-Encoding: chunked\r\nContent-Length: 3")},
	{name: "chunked and two lengths", want: "400 400 400", bytes: encoded("Transfer-Encoding: chunked\r\nContent-Length: 3\r\nContent-Length: 4")},
	{name: "chunked and a bad length", want: "400 400 400", bytes: encoded("Transfer-Encoding: chunked\r\nContent-Length: x")},
	{name: "Chunked", want: "200 200 200", bytes: encoded("Transfer-Encoding: CHUNKED")},
	{name: "twice chunked", want: "501 501 501", bytes: encoded("Transfer-Encoding: chunked, chunked")},
	{name: "chunked in two fields", want: "501 501 400", bytes: encoded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")},
	{name: "identity and chunked", want: "501 501 400", bytes: encoded("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked")},
	{name: "chunked and identity", want: "501 501 501", bytes: encoded("Transfer-Encoding: chunked, identity")},
	{name: "identity", want: "501 501 501", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde" + evil},
	{name: "gzip", want: "501 501 501", bytes: encoded("Transfer-Encoding: gzip, chunked")},
	{name: "xchunked", want: "501 501 501", bytes: encoded("Transfer-Encoding: xchunked\r\nContent-Length: 5")},
	{name: "chunked with a parameter", want: "501 501 501", bytes: encoded("Transfer-Encoding: chunked;q=1")},
	{name: "chunked with a comma", want: "501 501 501", bytes: encoded("Transfer-Encoding: ,chunked,")},
	{name: "chunked in quotes", want: "501 501 501", bytes: encoded("Transfer-Encoding: \"chunked\"")},
	{name: "chunked in other spaces", want: "400 400 501", bytes: encoded("Transfer-Encoding: \x0bchunked")},
	{name: "chunked after a tab", want: "200 200 501", bytes: encoded("Transfer-Encoding:\tchunked\t")},
	{name: "chunked, folded", want: "200 200 400", bytes: encoded("Transfer-Encoding:\r\n chunked")},
	{name: "chunked, space before the colon", want: "400 400 400", bytes: encoded("Transfer-Encoding : chunked\r\nContent-Length: 5")},
	{name: "chunked, an underscore in the name", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nabcde" + evil},
	{name: "chunked after a NUL", want: "400 400 400", bytes: encoded("Transfer-Encoding: \x00chunked\r\nContent-Length: 5")},
	{name: "empty encoding", want: "501 501 501", bytes: encoded("Transfer-Encoding:\r\nContent-Length: 5")},
	{name: "chunked, a line feed in the name", want: "200 200 200", bytes: encoded("X: y\nTransfer-Encoding: chunked")},
}

var oddChunks = []odd{
	{name: "chunk extension", want: "200 200 200", bytes: chunked("5;a=b;c=\"d;\"\r\nabcde\r\n0;x\r\n\r\n" + evil)},
	{name: "line feed in an extension", want: "400 400 400", bytes: chunked("5;\nabcde\r\n49\r\n0\r\n\r\n" + evil)},
	{name: "carriage return in an extension", want: "400 400 400", bytes: chunked("5;\rx\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "NUL in an extension", want: "200 200 200", bytes: chunked("5;\x00\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "extension of 100 KiB", want: "400 400 200", bytes: chunked("5;" + strings.Repeat("x", 100<<10) + "\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "one byte each, with extensions", want: "200 200 200", bytes: chunked(strings.Repeat("1;xxxxxxxxxxxxxxxxxxxx\r\na\r\n", 2000) + "0\r\n\r\n")},
	{name: "space after the size", want: "200 200 200", bytes: chunked("5 \r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "tab after the size", want: "200 200 200", bytes: chunked("5\t\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "space before the size", want: "400 400 400", bytes: chunked(" 5\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size with a plus sign", want: "400 400 400", bytes: chunked("+5\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "negative size", want: "400 400 400", bytes: chunked("-5\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size with 0x", want: "400 400 400", bytes: chunked("0x5\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size with an underscore", want: "400 400 400", bytes: chunked("0_5\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size with zeros in front", want: "200 200 200", bytes: chunked("0000000000000005\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size with many zeros in front", want: "400 400 200", bytes: chunked("00000000000000000000005\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size in capital letters", want: "200 200 200", bytes: chunked("A\r\nabcdeabcde\r\n0\r\n\r\n" + evil)},
	{name: "size above 64 bits", want: "400 400 400", bytes: chunked("10000000000000005\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size of 64 bits", want: "400 400 400", bytes: chunked("ffffffffffffffff\r\nabcde\r\n0\r\n\r\n" + evil), cut: true},
	{name: "size of 63 bits", want: "400 400 400", bytes: chunked("7fffffffffffffff\r\nabcde\r\n0\r\n\r\n" + evil), cut: true},
	{name: "no size", want: "400 400 400", bytes: chunked("\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "size that is none", want: "400 400 400", bytes: chunked("g\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "line feed after the size", want: "400 400 200", bytes: chunked("5\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "carriage return after the size", want: "400 400 400", bytes: chunked("5\rabcde\r\n0\r\n\r\n" + evil)},
	{name: "two carriage returns after the size", want: "400 400 400", bytes: chunked("5\r\r\nabcde\r\n0\r\n\r\n" + evil)},
	{name: "line feed after the data", want: "400 400 200", bytes: chunked("5\r\nabcde\n0\r\n\r\n" + evil)},
	{name: "nothing after the data", want: "400 400 400", bytes: chunked("5\r\nabcde0\r\n\r\n" + evil)},
	{name: "data above the size", want: "400 400 400", bytes: chunked("5\r\nabcdef\r\n0\r\n\r\n" + evil)},
	{name: "line feeds at the end", want: "400 400 200", bytes: chunked("5\r\nabcde\r\n0\n\n" + evil)},
	{name: "chunks cut off", want: "400 400 none", bytes: chunked("5\r\nabcde\r\n"), cut: true},
	{name: "chunk cut off", want: "400 400 none", bytes: chunked("5\r\nabc"), cut: true},
	{name: "end cut off", want: "400 400 none", bytes: chunked("5\r\nabcde\r\n0\r\n"), cut: true},
	{name: "trailers", want: "200 200 200", bytes: chunked("0\r\nX-Sum: 1\r\n\r\n")},
	{name: "announced trailers", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: X-Sum, X-Lodge-User\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX-Lodge-User: evil\r\nX_Forwarded_For: evil\r\n\r\n" + evil},
	{name: "trailers that frame", want: "400 400 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: Content-Length, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 70\r\n\r\n" + evil},
	{name: "trailers that route", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: shop.lodge.localhost\r\nTransfer-Encoding: chunked\r\nX-Sum: 1\r\n\r\n" + evil},
	{name: "folded trailer", want: "200 200 200", bytes: chunked("0\r\nX: a\r\n b\r\n\r\n")},
	{name: "malformed trailer", want: "200 200 200", bytes: chunked("0\r\nX-Lodge-User : evil\r\n\r\n")},
	{name: "trailer with a NUL", want: "400 400 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: a\x00b\r\n\r\n"},
	{name: "trailer with a carriage return", want: "400 400 400", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: a\rb\r\n\r\n"},
	{name: "Trailer with a line feed", want: "200 200 200", bytes: "POST /odd HTTP/1.1\r\nHOST\r\nTrailer: X-Sum\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n"},
}
