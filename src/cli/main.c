/* SPDX-License-Identifier: MIT */
#include "private.h"

int main(int argc, char **argv)
{
	return cprof_cli(argc, argv);
}
