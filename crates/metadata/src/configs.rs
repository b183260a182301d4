//! The table of configuration keys: names, types, defaults and bounds. One table serves validation,
//! DescribeConfigs and the generated documentation.
