//! New ONNX models read back as written.

use curmerge_formats::onnx::{
    Attribute, AttributeValue, Dimension, ElementType, MAX_MODEL, NewGraph, NewOnnx, NewOnnxTensor, Node,
    Onnx, OnnxLayout, Storage, ValueInfo, ValueType,
};
use curmerge_formats::{Error, OutputFile};

fn info(name: &str, element: ElementType, shape: Vec<Dimension>) -> ValueInfo {
    ValueInfo { name: name.into(), value_type: Some(ValueType::Tensor { element, shape: Some(shape) }) }
}

fn tensor(name: &str, dims: &[u64], values: Option<Vec<u8>>) -> NewOnnxTensor {
    NewOnnxTensor { name: name.into(), element: ElementType::FLOAT, dims: dims.to_vec(), values }
}

fn node(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Node {
    Node {
        name: format!("/{output}"),
        op_type: op_type.into(),
        domain: String::new(),
        inputs: inputs.iter().map(|&name| name.into()).collect(),
        outputs: vec![output.into()],
        attributes,
        metadata: vec![("from".into(), output.into())],
    }
}

/// y = x W + b, with every kind of attribute and dimension.
fn model() -> NewOnnx {
    let of = |name: &str, value| Attribute { name: name.into(), value };
    let attributes = vec![
        of("alpha", AttributeValue::Float(1.5)),
        of("axis", AttributeValue::Int(-1)),
        of("floats", AttributeValue::Floats(vec![0.5, -2.0])),
        of("ints", AttributeValue::Ints(vec![3, -1])),
        of("mode", AttributeValue::String(b"linear".to_vec())),
        of("names", AttributeValue::Strings(vec![b"a".to_vec(), Vec::new()])),
    ];
    let named = |name: &str| Dimension::Named(name.into());
    let graph = NewGraph {
        name: "main".into(),
        nodes: vec![
            node("MatMul", &["x", "w"], "xw", attributes),
            Node { domain: "com.microsoft".into(), ..node("Add", &["xw", "", "b"], "y", Vec::new()) },
        ],
        initializers: vec![
            tensor("w", &[512, 600], None),
            tensor("b", &[2], Some([1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect())),
            tensor("small", &[3], None),
            tensor("none", &[0, 7], None),
            tensor("middle", &[1000], None),
        ],
        inputs: vec![info("x", ElementType::FLOAT, vec![named("batch"), Dimension::Fixed(512)])],
        outputs: vec![info("y", ElementType::FLOAT16, vec![Dimension::Unknown, Dimension::Fixed(600)])],
        value_info: vec![info("xw", ElementType::FLOAT, Vec::new())],
    };
    NewOnnx {
        ir_version: 8,
        producer: ("curmerge".into(), "1".into()),
        opsets: vec![(String::new(), 14), ("com.microsoft".into(), 1)],
        metadata: vec![("key".into(), "value".into())],
        graph,
    }
}

/// The byte that fills each tensor of the model.
fn filling(index: usize) -> u8 {
    index as u8 + 1
}

/// Writes the model, fills every tensor without values, and reads the model back.
fn written(model: &NewOnnx, folder: &std::path::Path, external: Option<&str>) -> Onnx {
    let layout = OnnxLayout::new(model, external).unwrap();
    let file = OutputFile::create(&folder.join("model.onnx"), &[]).unwrap();
    let data = external.map(|name| OutputFile::create(&folder.join(name), &[]).unwrap());
    for (offset, bytes) in layout.frame() {
        file.write_all_at(offset, bytes).unwrap();
    }
    for (index, place) in layout.places().iter().enumerate() {
        if model.graph.initializers[index].values.is_none() {
            let to = if place.external { data.as_ref().unwrap() } else { &file };
            to.write_all_at(place.offset, &vec![filling(index); place.bytes as usize]).unwrap();
        }
    }
    file.commit().unwrap();
    let length = std::fs::metadata(folder.join("model.onnx")).unwrap().len();
    assert_eq!(length, layout.model_bytes());
    if let (Some(data), Some(name)) = (data, external) {
        data.commit().unwrap();
        assert_eq!(std::fs::metadata(folder.join(name)).unwrap().len(), layout.external_bytes());
    }
    Onnx::open(&folder.join("model.onnx")).unwrap()
}

#[track_caller]
fn assert_same(read: &Onnx, model: &NewOnnx) {
    assert_eq!((read.ir_version(), read.producer()), (8, ("curmerge", "1")));
    assert_eq!((read.opsets(), read.metadata()), (&model.opsets[..], &model.metadata[..]));
    let (graph, wanted) = (read.graph(), &model.graph);
    assert_eq!((&graph.name, &graph.nodes), (&wanted.name, &wanted.nodes));
    assert_eq!((&graph.inputs, &graph.outputs), (&wanted.inputs, &wanted.outputs));
    assert_eq!(graph.value_info, wanted.value_info);
    assert_eq!(graph.initializers.len(), wanted.initializers.len());
    for (index, (tensor, wanted)) in graph.initializers.iter().zip(&wanted.initializers).enumerate() {
        assert_eq!((&tensor.name, tensor.element), (&wanted.name, wanted.element));
        assert_eq!(tensor.dims, wanted.dims);
        let data = read.data(tensor).unwrap();
        match &wanted.values {
            Some(values) => assert_eq!(&data[..], values),
            None => assert!(data.iter().all(|&byte| byte == filling(index))),
        }
    }
}

#[test]
fn a_model_in_one_file_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let read = written(&model(), folder.path(), None);
    assert_same(&read, &model());
    assert!(read.external_files().is_empty());
}

#[test]
fn large_tensors_are_aligned_for_mapping_in_the_external_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    model.graph.initializers.swap(0, 4);
    let read = written(&model, folder.path(), Some("model.onnx_data"));
    assert_same(&read, &model);
    let offset = |name: &str| match read.initializer(name).unwrap().storage {
        Storage::External { offset, .. } => Some(offset),
        _ => None,
    };
    assert_eq!((offset("middle"), offset("w")), (Some(0), Some(1 << 16)));
    assert_eq!((offset("b"), offset("small"), offset("none")), (None, None, None));
}

#[test]
fn models_that_no_reader_accepts_are_refused() {
    let refused = |change: &dyn Fn(&mut NewOnnx), external: Option<&str>, says: &str| {
        let mut model = model();
        change(&mut model);
        let error = OnnxLayout::new(&model, external).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }) && error.to_string().contains(says), "{error}");
    };
    refused(&|_| (), Some("../data"), "leads out of it");
    refused(&|m| m.graph.initializers[2].name = "xw".into(), None, "the name is taken");
    refused(&|m| m.graph.nodes[0].name = "/y".into(), None, "the name is taken");
    refused(&|m| m.graph.inputs[0].name = String::new(), None, "has no name");
    refused(&|m| m.metadata.push(("key".into(), String::new())), None, "the name is taken");
    refused(&|m| m.graph.initializers[0].dims = vec![1 << 40, 1 << 40], None, "too large");
    refused(&|m| m.graph.initializers[1].dims = vec![3], None, "8 bytes, but its shape takes 12");
    refused(&|m| m.graph.initializers[0].dims = vec![MAX_MODEL / 4, 1], None, "external data");
    let graph = AttributeValue::Type;
    refused(
        &|m| m.graph.nodes[0].attributes[0].value = graph.clone(),
        None,
        "not a number, a text or a list",
    );
    refused(&|m| m.graph.outputs[0].value_type = None, None, "not that of a tensor");

    // An input with a default value has the name of its initializer.
    let mut model = model();
    model.graph.inputs.push(info("b", ElementType::FLOAT, vec![Dimension::Fixed(2)]));
    OnnxLayout::new(&model, None).unwrap();
}
