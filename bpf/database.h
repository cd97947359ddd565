/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Just enough of the protocols of databases to tell their connections from others at their beginning, and the end of an answer.
 * PostgreSQL: https://www.postgresql.org/docs/18/protocol-message-formats.html; MySQL and MariaDB:
 * https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.
 */
#ifndef DATABASE_H
#define DATABASE_H

#include "http1.h"

enum {
	ANSWER_HEAD = 352, /* bytes of the beginning of a piece of a database's answer that are captured */
	ANSWER_TAIL = 64,  /* and of its end */
	ANSWER_END = 16,   /* bytes in which an end shows */
	CLOSE_SIZE = 9,	   /* of COM_STMT_CLOSE */
};

enum database_side {
	DATABASE_NONE,
	DATABASE_ASKS,	  /* who sends this is the client */
	DATABASE_ANSWERS, /* the server, which speaks first */
};

/* database_start says whether a connection that begins with these bytes is one to a database. */
static __always_inline u32 database_start(u64 word)
{
	u32 length = bpf_ntohl((u32)word), code = bpf_ntohl(word >> 32);
	u8 digit = word >> 40;

	/* StartupMessage of version 3.0 or 3.2, CancelRequest, SSLRequest, GSSENCRequest: length, code. */
	if (length >= 8 && length <= 10000 &&
	    (code == 0x30000 || code == 0x30002 || (code >= 80877102 && code <= 80877104)))
		return DATABASE_ASKS;
	/* Handshake packet: length (3 bytes, the least first), number 0, version 10, then the server's version as text. */
	if (!((u32)word & 0xffffff00) && (word >> 32 & 0xff) == 10 && digit >= '1' && digit <= '9')
		return DATABASE_ANSWERS;
	return DATABASE_NONE;
}

/* closes_statement says whether it is MySQL's COM_STMT_CLOSE: a packet of five bytes, number 0. */
static __always_inline bool closes_statement(u64 word)
{
	return (u32)word == 5 && (word >> 32 & 0xff) == 0x19;
}

struct answer_end {
	u8 text[ANSWER_END];
};

/* ends_answer says whether the last bytes of what moved look like the end of an answer: ReadyForQuery, or an EOF packet in one of
 * its forms. */
static __always_inline bool ends_answer(const struct answer_end *e)
{
	const u8 *b = e->text + ANSWER_END;

	if (b[-6] == 'Z' && !b[-5] && !b[-4] && !b[-3] && b[-2] == 5)
		return true;
	if (b[-9] == 5 && !b[-8] && !b[-7] && b[-5] == 0xfe)
		return true;
	return b[-11] == 7 && !b[-10] && !b[-9] && b[-7] == 0xfe;
}

#endif
